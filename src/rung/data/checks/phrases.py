"""Phrases by which unwanted answers and orders to a model are known, as patterns: a line a language or form.

Forms are narrow: "I can't find your order" is an answer, "I can't help with that" is a refusal.
"""

from __future__ import annotations

import re


def _any(*forms: str, flags: int = re.I) -> re.Pattern[str]:
    return re.compile("|".join(forms), flags)


_DO = (
    r"(?:(?:assist|help|comply|fulfil|answer|do that|engage)|"
    r"(?:provide|generate|create|discuss|share|support|complete|continue|produce|write|offer|give)\b"
    r"(?=[.!]|[^.!?\n]{0,40}\b(?:that|this|such|requests?|content|advice|information|instructions|assistance|harm\w*|"
    r"illegal|explicit|material|opinions?|medical|legal|financial|topics?|details)\b))"
)
_SORRY = r"(?:(?:i['’]?m|i am) (?:very |so |really )?(?:sorry|afraid)|sorry|apologies|i apologi[sz]e|unfortunately)"

REFUSAL = _any(
    rf"^\W*{_SORRY}?[^.!?\n]{{0,20}}?\bi (?:can['’]?t|cannot|can not|won['’]?t|am unable to|am not able to) {_DO}",
    rf"^\W*i['’]m (?:unable|not able) to {_DO}",
    r"\bi (?:do not|don['’]t|cannot|can['’]t) (?:have access to real-time|browse the internet|access real-time)",
    r"\bagainst my (?:guidelines|programming|policy)",
    r"es tut mir leid,? (?:aber )?(?:ich kann|dabei kann|das kann)[^.\n]{0,40}nicht",
    r"ich kann (?:dir|ihnen|dabei|diese anfrage)[^.\n]{0,30}nicht (?:helfen|weiterhelfen|beantworten|erf[uü]llen)",
    r"je suis d[ée]sol[ée]e?,? (?:mais )?je ne (?:peux|suis pas|puis)",
    r"je ne peux pas (?:vous aider|t['’]aider|r[ée]pondre [aà] cette)",
    r"lo siento,? (?:pero )?no (?:puedo|estoy)|no puedo (?:ayudarte|ayudarle|ayudar con|cumplir con)",
    r"mi dispiace,? (?:ma )?non (?:posso|sono in)",
    r"desculpe,? (?:mas )?(?:eu )?n[aã]o posso|sinto muito,? (?:mas )?n[aã]o",
    r"het spijt me,? (?:maar )?(?:ik kan|dat kan|daar kan)[^.\n]{0,40}niet",
    r"przykro mi,? (?:ale )?nie mog[eę]",
    r"(?:很?抱歉|对不起)[，,]?\s*(?:但)?我?(?:不能|无法)",
    r"申し訳(?:ありません|ございません)が[^。\n]{0,30}(?:できません|いたしかねます)",
    r"죄송(?:합니다|하지만)[^.\n]{0,30}(?:없습니다|수 없)",
)
AS_AN_AI = _any(
    r"\bas an? ai\b(?! (?:company|start|team|lab|vendor|firm|agency|engineer))",
    r"\bas an? (?:artificial intelligence|(?:large )?language model|virtual assistant)",
    r"\bi(?:['’]m| am) (?:just |only )?an? (?:ai\b|(?:large )?language model|artificial intelligence)",
    r"\bals (?:eine? )?(?:ki\b|ki-|k[uü]nstliche intelligenz|sprachmodell)",
    r"\ben tant qu['’e] ?(?:une? )?(?:ia\b|intelligence artificielle|mod[eè]le)",
    r"\bcomo (?:una? |uma? )?(?:ia\b|intelig[eê]n(?:cia) artificial|modelo de l(?:enguaje|inguagem))",
    r"\bcome (?:un['’a]? ?)?(?:ia\b|intelligenza artificiale|modello linguistico)",
    r"\bals (?:een )?(?:ai\b|taalmodel)",
    r"作为(?:一个|一名)?(?:人工智能|AI|大?语言模型)|(?:AI|言語モデル|人工知能)として",
)
PLACEHOLDER = _any(
    r"\{\{ ?[\w .\-]{1,40} ?\}\}|\$\{[\w.]{1,40}\}",
    r"\b[Ll]orem ipsum\b",
    r"(?<![\w\])])\[(?:YOUR|INSERT|ENTER|ADD|FILL)[^\]\n]{0,40}\](?!\()",
    r"(?<![\w\])])\[[A-Z][A-Z_ ]{2,30}(?:NAME|DATE|ADDRESS|NUMBER|EMAIL|COMPANY|PHONE)\](?!\()",
    r"(?<![\w\])])\[(?:NAME|DATE|ADDRESS|COMPANY|EMAIL|PHONE|CITY|PLACEHOLDER|REDACTED|CUSTOMER|PRODUCT|"
    r"ORDER|AMOUNT|TODO|TBD)\](?!\()",
    r"(?<![\w\])])\[(?:[Yy]our|[Ii]nsert|[Nn]ame|[Cc]ompany|[Dd]ate)\b[^\]\n]{0,30}\](?!\()",
    r"<(?:your|insert|enter)[ _-][^>\n]{1,40}>",
    r"\b(?:TODO|FIXME|TBD)\b(?!\w)",
    r"^\W*(?:xxx+|XXX+|placeholder|tba|dummy|asdf|foo ?bar)\W*$",
    flags=0,
)
BOILERPLATE = _any(
    r"^\W*(?:sure(?: thing)?|certainly|of course|absolutely)[!,.]",
    r"^\W*(?:great question|good question|i['’]d be happy to|i would be happy to|happy to help)",
    r"^\W*thank you for (?:your question|asking)",
    r"^\W*here(?: is|['’]s| are) (?:the|a|an|your|my|some) [^.\n]{0,60}:\s*\n",
    r"^\W*(?:gerne!|nat[uü]rlich[!,]|selbstverst[aä]ndlich[!,]|klar[!,])",
    r"^\W*(?:bien s[uû]r ?[!,]|certainement ?[!,]|¡?claro(?: que s[ií])?[!,]|¡?por supuesto[!,])",
    r"^\W*(?:certo[!,]|certamente[!,]|当然[！!，,]|もちろん)",
    r"(?:i hope (?:this|that) helps|let me know if you|feel free to (?:ask|reach))[^.!\n]{0,60}[.!?]?\s*$",
    r"(?:is there anything else i can|hoffe,? das hilft|n['’]h[ée]sitez pas)[^.!\n]{0,60}[.!?]?\s*$",
)

_EARLIER = r"(?:previous|prior|above|earlier|preceding|foregoing|existing|original|system|initial)"
_WHOSE = r"(?:all |any |the |these |those |my |your |of |every |other )*"
_GERMAN = r"(?:vorherigen |bisherigen |obigen |vorigen |fr[uü]heren )*(?:anweisung|instruktion|befehl|regel)"

_HEAD = 400  # characters in which a refusal stands

ORDERS = _any(
    rf"\b(?:ignore|disregard|forget|override|bypass|do not follow|don't follow|stop following) {_WHOSE}{_EARLIER} "
    r"(?:\w+ )?(?:instruct|prompt|direct|rule|command|guideline|order|message|context|text|training)",
    r"\b(?:ignore|disregard|forget) (?:everything|all|anything) (?:you|that|written|said|from|before|above)",
    r"\b(?:ignore|disregard|override) (?:your|the|all|any)(?: \w+)? (?:instructions|prompt|guidelines|rules)\b"
    r"(?! (?:of|for|in|on|at)\b)",
    r"\b(?:reveal|print|show|repeat|output|leak) (?:me )?(?:your|the) (?:\w+ )?(?:system prompt|instructions above)",
    r"\byou (?:are|must) now (?:act as |in |a |an |the )?(?:dan\b|developer mode|jailbroken|unrestricted)",
    r"\bnew (?:system )?instructions? ?:",
    r"\b(?:instructions?|note|message|important|attention)(?: to| for) (?:the |any |all )?"
    r"(?:ai|llm|assistant|language model|model|chatbot)s?\b",
    r"\b(?:if you are|as) an? (?:ai|llm|language model|assistant)[^.\n]{0,30}(?:must|should|reading this)",
    r"\bdo not (?:tell|inform|mention)[^.\n]{0,30}\b(?:user|human|this instruction|these instructions)",
    r"\b(?:always|must) (?:answer|respond|reply|output|classify|say)[^.\n]{0,60}"
    r"(?:regardless of|no matter what|whatever the|when(?:ever)? you see)",
    rf"\bignorier(?:e|en|t)? (?:sie )?(?:bitte )?(?:alle |die |deine |ihre |s[aä]mtliche )*{_GERMAN}",
    r"\b(?:ignore[zr]?|oublie[zr]?) (?:toutes |tous )?(?:les|vos|tes|ces) (?:consigne|instruction|r[eè]gle|directive)",
    r"\b(?:ignor[ae]|olvid[ae]) (?:todas? )?(?:las?|tus|sus|los) (?:\w+ )?(?:instruccion|indicacion|[oó]rden|regla)",
    r"\b(?:ignora|dimentica) (?:tutte )?(?:le|tue) (?:\w+ )?istruzion",
    r"忽略(?:之前|以上|先前|所有)[^。\n]{0,6}(?:指令|指示|提示|说明)",
    r"(?:以前|上記|これまで)の(?:指示|命令)[^。\n]{0,4}無視",
)
ORDERS_TO_A_READER = _any(
    r"<\s*/\s*passages?\b[^>\n]{0,12}>",
    r'"role"\s*:\s*"system"',
    r"\b(?:answer|reply|respond)s? (?:only |just )?(?:with|by) (?:only |just )?(?:the|this) (?:word|sentence|link)\b",
    r"\b(?:disregard|ignore|forget) (?:the|this|your) (?:question|context|passages?)\b",
    r"\b(?:your|the) (?:whole |only )(?:allowed )?answer (?:is|must be|has to be)\b",
    r"\bdear (?:ai|llm|assistant|language model|chatbot)\b",
    r"\bto (?:the|any|every) (?:ai|llm|language model|ai assistant|chatbot)\s*[:,]",
    r"\bdecode this\b[^.\n]{0,40}\b(?:do what|follow|obey)",
    r"\binstructions? (?:that )?you (?:were|have been) given\b",
)
"""Orders of a document to a model that reads it as a passage; in the rows of a task they may be the task itself."""
_SIGNS = {
    pattern: signs.split("|")
    for pattern, signs in {
        REFUSAL: (
            "can't|can’t|cannot|can not|won't|won’t|unable|not able|against my|have access to|browse the|"
            "tut mir leid|ich kann|désolé|desole|ne peux pas|lo siento|no puedo|dispiace|desculpe|sinto muito|"
            "het spijt|przykro|抱歉|对不起|申し訳|죄송"
        ),
        AS_AN_AI: (
            " ai|language model|artificial|assistant| ki|künstlich|kunstlich|sprachmodell| ia|'ia|’ia|modèle|"
            "modele|modelo|modello|taalmodel|intelligen|人工智能|语言模型|言語モデル|として|作为"
        ),
        BOILERPLATE: (
            "sure|certainly|of course|absolutely|question|happy to|thank you for|here|gerne|natürlich|naturlich|"
            "selbstverst|klar|bien s|certainement|claro|supuesto|certo|certamente|当然|もちろん|helps|let me know|"
            "feel free|anything else|das hilft|hésitez|hesitez"
        ),
        ORDERS: (
            "ignor|disregard|forget|overrid|bypass|follow|system prompt|instruction|you are now|you must now|"
            " llm|whatever| ai|assistant|model|chatbot|do not |regardless|no matter|you see|oubli|olvid|dimentic|"
            "忽略|無視"
        ),
        ORDERS_TO_A_READER: (
            "passage|role|answer|reply|respond|disregard|ignor|forget|dear |to the|to any|to every|decode|instruction"
        ),
    }.items()
}
"""Pattern -> texts of which, in small letters, one at least stands in all that the pattern matches."""


def says(pattern: re.Pattern[str], text: str, small: str) -> bool:
    """Whether a text holds what a pattern describes. small: it in small letters, in which signs are quickly seen."""
    return any(sign in small for sign in _SIGNS[pattern]) and pattern.search(text) is not None


def refuses(text: str) -> bool:
    """Whether a text refuses, in one of several languages, or speaks as a model that cannot do what is asked."""
    head = text[:_HEAD]
    small = head.lower()
    return says(REFUSAL, head, small) or says(AS_AN_AI, head, small)


SPOKEN_TO = _any(
    r"\b(?:ai|llm|assistant|chatbot|model|ignore|disregard|respond|reply|answer|classify|say|system|prompt)\b",
    r"\binstruct\w*|\byou (?:must|should)\b",
)
"""Words of a comment that speaks to a model."""
CONTROL_TOKENS = _any(
    r"<\|(?:im_start|im_end|im_sep|endoftext|begin_of_text|end_of_text|start_header_id|end_header_id)\|>",
    r"<\|(?:eot_id|eom_id|system|user|assistant|end|pad)\|>",
    r"\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|<(?:bos|eos)>",
    r"<｜(?:User|Assistant|begin▁of▁sentence|end▁of▁sentence)｜>",
    flags=0,
)
ROLE = re.compile(r"^[ \t#*>]*(?:system|assistant|system (?:message|prompt|note))[ \t*]*:", re.I | re.M)
