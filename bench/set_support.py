# ruff: noqa: E501 - a line is as long as what it says in another script
"""A support site, made: articles in English, German, Chinese, Japanese and Thai, and questions in other words.

An article treats one matter of one device. Questions in English share hardly a word with the article but common ones;
those in the other languages are worded otherwise, too. Files are text, web pages and, in English and German, PDF.
Long because five languages are written out here.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from made_documents import html_of, pdf_of
from made_sets import MadeSet, Row, taken

DEVICES = {
    "Visto": {"en": ("video intercom", "doorbell"), "de": ("Türsprechanlage", "Klingel"), "zh": ("可视门铃", "门口的门铃"),
              "ja": ("テレビドアホン", "玄関のチャイム"), "th": ("กริ่งประตูวิดีโอ", "กริ่งหน้าบ้าน")},
    "Termo": {"en": ("heating controller", "thermostat"), "de": ("Heizungsregler", "Thermostat"),
              "zh": ("采暖控制器", "温控器"), "ja": ("暖房コントローラー", "サーモスタット"),
              "th": ("ตัวควบคุมความร้อน", "เทอร์โมสตัท")},
    "Klavis": {"en": ("electronic latch", "door lock"), "de": ("Schließzylinder", "Türschloss"),
               "zh": ("电子门闩", "门锁"), "ja": ("電子錠", "ドアの鍵"), "th": ("สลักไฟฟ้า", "ล็อคประตู")},
    "Sonata": {"en": ("audio unit", "loudspeaker"), "de": ("Audiogerät", "Lautsprecher"), "zh": ("音响设备", "音箱"),
               "ja": ("オーディオ機器", "スピーカー"), "th": ("เครื่องเสียง", "ลำโพง")},
    "Oculo": {"en": ("surveillance unit", "camera"), "de": ("Überwachungsgerät", "Kamera"), "zh": ("监控设备", "摄像头"),
              "ja": ("監視装置", "カメラ"), "th": ("อุปกรณ์เฝ้าระวัง", "กล้อง")},
}  # fmt: skip


@dataclass(frozen=True)
class Matter:
    """texts: language -> heading and what the article says. asked: language -> questions. {p}: the device with its
    name; {c}: what people call it; {v}: the value. values: one a device; the same in all languages but for units."""

    values: Sequence[str]
    texts: dict[str, tuple[str, str]]
    asked: dict[str, Sequence[str]]


MATTERS = (
    Matter(("12", "7", "15", "20", "9"), {
        "en": ("Restoring the factory state", "Insert a pin into the recess and keep the contact pressed for {v} seconds. "
               "The indicator of the {p} blinks amber, then goes dark. All pairings are gone afterwards."),
        "de": ("Werkszustand herstellen", "Halten Sie den versenkten Kontakt {v} Sekunden lang gedrückt. Die Anzeige des "
               "Geräts {p} blinkt gelb und erlischt dann. Alle Kopplungen sind danach aufgehoben."),
        "zh": ("恢复出厂状态", "请用针按住凹孔内的触点{v}秒。{p}的指示灯会闪烁黄光，然后熄灭。此后所有配对都会被清除。"),
        "ja": ("工場出荷状態に戻す", "くぼみの中の接点を{v}秒間押し続けてください。{p}の表示灯が橙色に点滅し、消灯します。"
               "登録した機器はすべて解除されます。"),
        "th": ("คืนค่าจากโรงงาน", "กดจุดสัมผัสในช่องค้างไว้ {v} วินาที ไฟแสดงสถานะของ {p} จะกะพริบสีเหลืองแล้วดับลง "
               "การจับคู่ทั้งหมดจะถูกลบ")}, {
        "en": ("How long do I push the button to wipe my {c} and begin from scratch?",
               "I sold my {c} and want to erase everything. For what time must the little hole be pushed?"),
        "de": ("Wie lange muss ich drücken, um bei {c} alles zu löschen und neu anzufangen?",
               "Ich verkaufe mein Gerät ({c}). Wie lange drückt man den kleinen Knopf, bis alles weg ist?"),
        "zh": ("我想把{c}里的东西全部清空重新开始，要按多久？", "{c}要送人了，怎么重置？小孔里的按钮按几秒？"),
        "ja": ("{c}を初期化して最初からやり直したい。何秒押せばいいですか？",
               "{c}を人に譲ります。リセットするには小さなボタンをどのくらい押しますか？"),
        "th": ("ต้องกดปุ่มนานเท่าไรเพื่อล้างข้อมูล{c}ทั้งหมดแล้วเริ่มใหม่", "จะรีเซ็ต{c} ต้องกดปุ่มเล็กค้างกี่วินาที")}),
    Matter(("03:40", "02:15", "04:25", "01:50", "23:35"), {
        "en": ("Firmware maintenance", "Revised firmware is fetched at {v} on the first night of each week. The {p} restarts "
               "by itself; no action is required."),
        "de": ("Pflege der Firmware", "Eine neue Fassung der Firmware wird in der ersten Nacht der Woche um {v} Uhr geladen. "
               "Danach startet das Gerät {p} von selbst."),
        "zh": ("固件维护", "每周第一天夜里{v}会获取修订后的固件，{p}随后自行重启，无需任何操作。"),
        "ja": ("ファームウェアの保守", "毎週最初の夜の{v}に改訂版のファームウェアを取得し、{p}は自動で再起動します。"),
        "th": ("การบำรุงรักษาเฟิร์มแวร์", "ทุกคืนแรกของสัปดาห์เวลา {v} เฟิร์มแวร์ฉบับใหม่จะถูกดึงมา และ {p} จะเริ่มทำงานใหม่เอง")}, {
        "en": ("When does my {c} look for software updates?", "At what hour does an upgrade of the {c} happen?"),
        "de": ("Wann sucht {c} nach Updates?", "Zu welcher Uhrzeit aktualisiert sich die Software bei {c}?"),
        "zh": ("{c}什么时候会自动更新软件？", "{c}几点升级？"),
        "ja": ("{c}のソフトは何時にアップデートされますか？", "{c}の更新はいつ行われますか？"),
        "th": ("{c}อัปเดตซอฟต์แวร์กี่โมง", "{c}จะอัปเกรดตอนเวลาไหน")}),
    Matter(("7", "11", "26", "3", "5"), {
        "en": ("Endurance of the cell", "Under typical load the accumulator of the {p} lasts {v} weeks. Frost shortens this."),
        "de": ("Laufzeit des Akkus", "Bei üblicher Nutzung hält der Akku von {p} {v} Wochen. Frost verkürzt die Zeit."),
        "zh": ("蓄电池续航", "在通常负载下，{p}的蓄电池可维持{v}周。严寒会缩短这一时间。"),
        "ja": ("蓄電池の持続時間", "通常の使用では{p}の蓄電池は{v}週間もちます。低温では短くなります。"),
        "th": ("อายุการใช้งานของแบตเตอรี่สะสม", "ในการใช้งานทั่วไป เซลล์สะสมไฟของ {p} อยู่ได้ {v} สัปดาห์ อากาศหนาวทำให้สั้นลง")}, {
        "en": ("How soon does my {c} need to be plugged in again?", "What battery life can I expect from the {c}?"),
        "de": ("Wie oft muss ich {c} aufladen?", "Wann ist bei {c} die Batterie leer?"),
        "zh": ("{c}充一次电能用多久？", "{c}多长时间要充电一次？"),
        "ja": ("{c}は一回の充電でどのくらい使えますか？", "{c}のバッテリーはいつ切れますか？"),
        "th": ("{c}ชาร์จครั้งหนึ่งใช้ได้นานแค่ไหน", "ต้องชาร์จ{c}บ่อยแค่ไหน")}),
    Matter(("36", "24", "60", "18", "30"), {
        "en": ("Guarantee", "Defects in material or workmanship of the {p} are remedied free of charge for {v} months from "
               "the date on the invoice."),
        "de": ("Gewährleistung", "Mängel in Material und Verarbeitung werden bei {p} {v} Monate ab Rechnungsdatum "
               "unentgeltlich behoben."),
        "zh": ("质量保证", "自发票日期起{v}个月内，{p}的材料或工艺缺陷予以免费修复。"),
        "ja": ("品質保証", "{p}の材料または製造上の欠陥は、請求書の日付から{v}か月間、無償で修理いたします。"),
        "th": ("การรับประกัน", "ความบกพร่องของวัสดุหรือการผลิตของ {p} จะได้รับการแก้ไขโดยไม่คิดค่าใช้จ่ายเป็นเวลา {v} เดือนนับจากวันที่ในใบแจ้งหนี้")}, {
        "en": ("My {c} broke. Until when is it repaired without paying?", "How long is the warranty of the {c}?"),
        "de": ("Wie lange habe ich Garantie auf {c}?", "{c} ist kaputt. Bis wann kostet mich die Reparatur nichts?"),
        "zh": ("{c}的保修期有多长？", "{c}坏了，多久之内修理不用花钱？"),
        "ja": ("{c}の保証期間はどのくらいですか？", "{c}が壊れました。いつまでならお金を払わずに直せますか？"),
        "th": ("{c}มีประกันกี่เดือน", "{c}เสีย ซ่อมฟรีได้ถึงเมื่อไร")}),
    Matter(("21", "14", "45", "28", "40"), {
        "en": ("Right of withdrawal", "Goods may be sent back within {v} days of delivery. Carriage of the {p} is borne by "
               "us; the sum is credited afterwards."),
        "de": ("Widerrufsrecht", "Die Ware {p} kann binnen {v} Tagen nach Lieferung zurückgesandt werden. Die Fracht "
               "tragen wir; der Betrag wird danach gutgeschrieben."),
        "zh": ("撤销权", "货到后{v}天内可将{p}寄回，运费由我方承担，款项随后入账。"),
        "ja": ("返品の権利", "{p}は納品から{v}日以内であれば返送できます。送料は当社が負担し、代金は後日返金します。"),
        "th": ("สิทธิในการเพิกถอน", "สามารถส่ง {p} กลับได้ภายใน {v} วันหลังได้รับสินค้า เรารับผิดชอบค่าขนส่ง และจะโอนเงินคืนภายหลัง")}, {
        "en": ("I changed my mind about the {c}. How much time is left to get my money back?",
               "By when must I return a {c} I do not like?"),
        "de": ("{c} gefällt mir nicht. Wie lange kann ich es zurückgeben?",
               "Bis wann bekomme ich mein Geld für {c} wieder?"),
        "zh": ("买了{c}后悔了，多少天内可以退货？", "{c}不喜欢，什么时候之前能退钱？"),
        "ja": ("{c}が気に入りません。何日までなら返せますか？", "{c}の購入をやめたい。お金が戻る期限は？"),
        "th": ("ไม่ชอบ{c} คืนได้ภายในกี่วัน", "เปลี่ยนใจไม่เอา{c}แล้ว ขอเงินคืนได้ถึงเมื่อไร")}),
    Matter(("6", "4", "16", "8", "10"), {
        "en": ("Delegating control", "The owner can invite up to {v} further accounts to operate the {p}. Rights are "
               "withdrawn in the same menu."),
        "de": ("Rechte weitergeben", "Der Inhaber kann bis zu {v} weitere Konten zur Bedienung von {p} einladen. Im selben "
               "Menü werden Rechte entzogen."),
        "zh": ("授权操作", "所有者最多可邀请{v}个其他账户操作{p}，权限可在同一菜单中撤回。"),
        "ja": ("操作権限の委任", "所有者は{p}を操作するアカウントを{v}件まで招待できます。権限は同じメニューで取り消せます。"),
        "th": ("การมอบสิทธิ์ควบคุม", "เจ้าของสามารถเชิญบัญชีอื่นได้สูงสุด {v} บัญชีเพื่อใช้งาน {p} และถอนสิทธิ์ได้ในเมนูเดียวกัน")}, {
        "en": ("How many relatives may use my {c} from their phones?", "Can my family share the {c}, and how many of us?"),
        "de": ("Wie viele aus meiner Familie dürfen {c} mit dem Handy steuern?",
               "Für wie viele Mitbewohner kann ich {c} freigeben?"),
        "zh": ("家里有几个人可以用手机控制{c}？", "{c}能和多少家人共享？"),
        "ja": ("家族の何人が{c}をスマホで使えますか？", "{c}は何人で共有できますか？"),
        "th": ("คนในครอบครัวใช้{c}ผ่านมือถือได้กี่คน", "แชร์{c}ให้คนอื่นได้กี่คน")}),
    Matter(("E-417", "T-208", "K-733", "S-951", "C-364"), {
        "en": ("Thermal protection", "Code {v} signals that the interior of the {p} is outside the permitted range. It "
               "resumes work once it has adapted."),
        "de": ("Thermischer Schutz", "Der Code {v} meldet, dass das Innere von {p} außerhalb des zulässigen Bereichs liegt."),
        "zh": ("热保护", "代码{v}表示{p}内部超出允许范围，待其适应后会恢复工作。"),
        "ja": ("熱保護", "コード{v}は、{p}の内部が許容範囲を超えていることを示します。適温になると再開します。"),
        "th": ("การป้องกันความร้อน", "รหัส {v} แสดงว่าภายใน {p} อยู่นอกช่วงที่อนุญาต เมื่อปรับตัวแล้วจะทำงานต่อ")}, {
        "en": ("Which error appears when my {c} gets too hot or too cold?", "The {c} overheated. What does it display?"),
        "de": ("Welche Fehlermeldung kommt, wenn {c} zu heiß wird?", "{c} ist überhitzt. Was wird angezeigt?"),
        "zh": ("{c}太热的时候会显示什么错误？", "{c}过热了，屏幕上出现哪个报错？"),
        "ja": ("{c}が熱くなりすぎるとどんなエラーが出ますか？", "{c}が冷えすぎたときの表示は？"),
        "th": ("{c}ร้อนเกินไปจะขึ้นข้อผิดพลาดอะไร", "{c}ขึ้นเออเรอร์อะไรเวลาเย็นจัด")}),
    Matter(("150", "165", "95", "210", "240"), {
        "en": ("Mounting position", "Fix the bracket of the {p} {v} cm above the ground, away from metal."),
        "de": ("Montageort", "Befestigen Sie den Halter von {p} {v} cm über dem Boden und fern von Metall."),
        "zh": ("安装位置", "请将{p}的支架固定在离地面{v}厘米处，并远离金属。"),
        "ja": ("取付位置", "{p}の金具は床から{v}センチの位置に、金属から離して固定してください。"),
        "th": ("ตำแหน่งติดตั้ง", "ยึดขาของ {p} ให้สูงจากพื้น {v} ซม. และห่างจากโลหะ")}, {
        "en": ("How high on the wall should I hang the {c}?", "Where do I drill the holes for my {c}?"),
        "de": ("Wie hoch hänge ich {c} an die Wand?", "In welcher Höhe bohre ich die Löcher für {c}?"),
        "zh": ("{c}应该挂在墙上多高的地方？", "装{c}要在多高打孔？"),
        "ja": ("{c}は壁のどの高さに付ければいいですか？", "{c}の穴はどこに開けますか？"),
        "th": ("ควรแขวน{c}บนผนังสูงเท่าไร", "เจาะรู{c}ที่ความสูงเท่าไร")}),
    Matter(("9 volts", "24 volts", "6 volts", "19 volts", "12 volts"), {
        "en": ("Supply", "The enclosed adapter feeds the {p} with {v} direct current. Others void the approval.")}, {
        "en": ("I lost the charger of my {c}. What must a new one put out?", "Which plug-in power brick fits the {c}?")}),
    Matter(("5", "3", "10", "8", "4"), {
        "en": ("Suspension of access", "After {v} failed sign-ins the {p} refuses further ones until the owner confirms by "
               "e-mail.")}, {
        "en": ("How often can I mistype the password of my {c} before I am blocked?", "Locked out of the {c}: after how "
               "many wrong tries?")}),
    Matter(("4.90", "2.50", "3.75", "6.20", "8.40"), {
        "en": ("The Plus plan", "Plus is billed at {v} euros each month and may be cancelled at any time. With it, the {p} "
               "stores more.")}, {
        "en": ("What is the price of a membership for the {c}?", "How expensive is the subscription of my {c}?")}),
    Matter(("30", "90", "365", "14", "60"), {
        "en": ("Storage period", "Entries in the log of the {p} are purged after {v} days. Export what you need before.")}, {
        "en": ("How far into the past can I look at what my {c} saw?", "When is the history of the {c} deleted?")}),
    Matter(("isopropanol", "distilled water", "silicone oil", "soapy water", "lens fluid"), {
        "en": ("Care", "Wipe the housing of the {p} with a cloth dampened with {v}. Solvents attack the coating.")}, {
        "en": ("How do I get dirt off my {c}?", "What may I clean the {c} with?")}),
    Matter(("8 to 19", "7 to 22", "9 to 17", "10 to 20", "6 to 18"), {
        "en": ("Service desk", "Agents for the {p} are on duty from {v} on workdays. Written enquiries are answered later.")}, {
        "en": ("At which hours can I talk to a human about my {c}?", "When may I call you because of the {c}?")}),
)  # fmt: skip
_AROUND = {
    "en": ("Before you begin, make sure that the device is connected and the app is signed in.",
           "If the steps did not help, open a ticket and attach the protocol.",
           "This article applies to all revisions sold since 2021.", "Was this page useful? Rate it below."),
    "de": ("Stellen Sie vorher sicher, dass das Gerät verbunden und die App angemeldet ist.",
           "Hilft das nicht, so eröffnen Sie bitte eine Anfrage und fügen das Protokoll bei.",
           "Dieser Artikel gilt für alle seit 2021 verkauften Ausführungen.", "War diese Seite nützlich?"),
    "zh": ("开始之前，请确认设备已连接，并且应用已登录。", "如果上述步骤无效，请提交工单并附上日志。",
           "本文适用于2021年以来销售的所有版本。", "本页对您有帮助吗？"),
    "ja": ("始める前に、機器が接続され、アプリにログインしていることを確認してください。",
           "解決しない場合は、ログを添えてお問い合わせください。", "この記事は2021年以降に販売された製品に適用されます。",
           "このページは役に立ちましたか？"),
    "th": ("ก่อนเริ่ม โปรดตรวจสอบว่าอุปกรณ์เชื่อมต่อแล้วและเข้าสู่ระบบแอปแล้ว", "หากยังไม่ได้ผล โปรดเปิดคำร้องและแนบบันทึก",
           "บทความนี้ใช้กับทุกรุ่นที่จำหน่ายตั้งแต่ปี 2021", "หน้านี้มีประโยชน์หรือไม่"),
}  # fmt: skip
_LETTERS = 84  # of a line of a PDF


def support(seed: int = 0, questions: int = 400) -> MadeSet:
    draw = random.Random(f"support {seed}")
    files: dict[str, bytes] = {}
    asked: list[tuple[str, str, str, str]] = []
    for number, matter in enumerate(MATTERS):
        for language, (heading, said) in matter.texts.items():
            for place, (device, names) in enumerate(DEVICES.items()):
                kind, called = names[language]
                product = f"{kind} {device}" if language == "en" else f"{device} ({kind})"
                value = matter.values[place]
                ending = ("txt", "html", "pdf") if language in ("en", "de") else ("txt", "html")
                ending_ = ending[(number + place) % len(ending)]
                path = f"{language}/{device.lower()}-{number:02}.{ending_}"
                around = draw.sample(_AROUND[language], 3)
                lines = [around[0], said.format(p=product, v=value), *around[1:]]
                files[path] = _WRITERS[ending_](f"{heading}: {product}", lines, language)
                for question in matter.asked[language]:
                    asked.append((question.format(c=called), value, path, f"{language}-{number}-{question}"))
    rows = [
        Row(f"support-{i:03}", question, answer, (path,), group)
        for i, (question, answer, path, group) in enumerate(taken(asked, questions, draw))
    ]
    return MadeSet(
        "support", "Answer the question of a customer with the fact only, as the support site says it.", files, rows
    )


def _text(title: str, lines: Sequence[str], language: str) -> bytes:
    return "\n\n".join((title, *lines, "")).encode()


def _html(title: str, lines: Sequence[str], language: str) -> bytes:
    body = f"<h1>{escape(title)}</h1>" + "".join(f"<p>{escape(line)}</p>" for line in lines)
    return html_of(title, f"<main>{body}</main>", language)


def _pdf(title: str, lines: Sequence[str], language: str) -> bytes:
    page, height = [(60.0, 720.0, 16.0, title)], 690.0
    for line in lines:
        words, row = line.split(), ""
        for word in [*words, ""]:
            if row and (not word or len(row) + len(word) >= _LETTERS):
                page.append((60.0, height, 11.0, row))
                height, row = height - 14, ""
            row = f"{row} {word}".strip()
        height -= 10
    return pdf_of([page], title=title)


_WRITERS = {"txt": _text, "html": _html, "pdf": _pdf}
