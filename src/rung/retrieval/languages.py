"""The language of a corpus, from the short words that stand in every sentence of a language.

What a stemmer is chosen by: one name for the corpus, or none where several languages share it or none is sure. Of a
single text, what requests are compared by.
Source of the method: Dunning, Statistical identification of language (1994), with words in the place of n-grams.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rung.retrieval.stemming import languages
from rung.text import units
from rung.types import Document

_SAMPLED = 400
"""Passages that are looked at, spread over the corpus."""
_LONGEST = 2_000
"""Characters of a passage that are looked at."""
_LEAST_WORDS = 30
"""Short words of languages at least in all of them; with fewer nothing is said."""
_SURE = 0.9
"""Share that one language must have of the passages whose language is known, counted by their words."""
_LEAST_KNOWN = 0.5
"""Share of the passages whose language must be known; of tables and lists it is not."""
_LEAST_SHARE = 0.12
"""Share of a passage's words that are short words of its language; with fewer its language is not known."""

_WORDS = {
    "english": "the of and to in is that for it with as was on are be this by from at which or an not have but",
    "german": "der die und das den von zu mit sich des auf für ist im dem nicht ein eine als auch es an werden aus er",
    "dutch": "de het een en van ik te dat die in op niet zijn met voor er aan om ook als bij door naar wordt deze",
    "french": "le la les des et de du une est en dans que qui pour pas sur au par plus avec ce il ne sont cette",
    "spanish": "el la los las de que y en un una es por con para del se no su al lo como más pero sus este",
    "portuguese": "o a os as de que e do da em um uma para com não por dos das no na se mais ao como mas",
    "italian": "il di che la e un a per in una del della non sono con si da le dei nel alla gli più come anche lo",
    "catalan": "el la els les de i que en un una és per amb del no es al dels pel més com aquest són va",
    "romanian": "și de în la cu pe că nu o un este din pentru care să mai au fost sau ca prin al a ale se",
    "swedish": "och att det i en som är av för på med den till inte ett om har de jag så var från kan men när",
    "norwegian": "og å det i en som er av for på med den til ikke et om har de jeg så var fra kan men når",
    "danish": "og at det i en som er af for på med den til ikke et om har de jeg så var fra kan men når ved",
    "finnish": "ja on ei että se oli joka hän mutta myös ovat kun niin sen tai kuin ole olla mukaan jos ovat vain sitä",
    "estonian": "ja on ei et see oli ka mis kui aga ning oma või kes ta selle ma siis pole tema välja olema peale",
    "hungarian": "a az és hogy nem is egy van ez meg de csak már volt mint azt el ha vagy még kell lehet után",
    "polish": "i w na nie się z do że to jest o jak po ale od za przez co dla są oraz czy tym tego jego",
    "czech": "a v na se je že to s z do o by ve k i jako pro ale po jsem při které jsou nebo který",
    "turkish": "ve bir bu da de için ile çok gibi daha olarak olan ne var en kadar sonra ya veya ama her değil",
    "indonesian": "yang dan di dengan untuk dari ini tidak itu dalam adalah pada ke akan oleh juga sebagai atau bisa",
    "lithuanian": "ir yra kad į iš su tai kaip ne bet buvo jo už apie tik nuo per ar šis jis dar jau arba",
    "basque": "eta da ez du bat dira izan ere zen dute hau baina edo egin behar duen gara beste bere zuen",
    "irish": "agus an na ar is go do sé ag bhí le a i nach mar ní atá sin chun leis ach níos",
    "vietnamese": "và của là có được không trong cho người các một với những này đã để khi cũng như về",
    "russian": "и в не на что с по как это из для но от за его он так все то же был или при также",
    "ukrainian": "і в не на що з та як це до за від але у й його про він для є або так був які",
    "bulgarian": "и на да се в от за не с е по са че като си или до при който това бе след",
    "serbian": "и у је да се на за од са не су који као што је би из али али или бити то",
    "greek": "και το να του η της που με την για από τα είναι στο οι τον δεν στην θα σε των τη ο",
    "arabic": "في من على أن إلى التي عن لا ما هذا مع كان هذه أو ذلك بعد كل الذي قد كما بين لم هو",
    "persian": "و در به از که این را با است برای آن یک خود تا کرد بر هم می شود شده باید دارد",
    "urdu": "کے کی میں کا ہے اور سے کو پر نے ہیں کہ یہ اس بھی ایک نہیں کر تھا تھے",
    "hindi": "के में की है और से का को पर यह कि नहीं हैं एक ने भी इस था लिए हो कर गया",
    "nepali": "छ र को मा पनि हो यो गर्न लागि भएको गरेको एक छन् तथा छैन थियो गर्ने भने",
    "marathi": "आहे आणि या च्या ते हे मध्ये तर होते एक असून आहेत केली नाही हा ही",
    "armenian": "և է մեջ որ են իր համար այս մի կամ հետ ու որը էր այդ նաև մասին",
    "tamil": "ஒரு என்று மற்றும் இந்த அது என உள்ளது இது அவர் இருந்து கொண்டு போன்ற அல்லது",
    "yiddish": "און אין די איז דער צו פֿון מיט דאָס ניט פאר איך האט וואס געווען",
}
"""Language -> some of its short words. Some have no stemmer, and are here to be told from those that have one."""

_OF = {language: frozenset(said.split()) for language, said in _WORDS.items()}
_KNOWN = frozenset().union(*_OF.values())
_LEAST_TELLING = 3
"""Different words of its language that a single text must hold, and twice as many as of any other."""
_TELLING = {
    language: frozenset(word for word in own if len(word) >= (3 if word.isascii() else 2))
    for language, own in _OF.items()
    if language not in ("danish", "norwegian")
} | {"danish or norwegian": frozenset(w for w in _OF["danish"] | _OF["norwegian"] if len(w) > 2)}


def languages_of(passages: Sequence[Document]) -> str:
    """The name of the stemmer for the language that nearly all of the corpus is in; empty where there is none."""
    step = max(1, len(passages) // _SAMPLED)
    weights: Counter[str] = Counter()
    short = 0
    for passage in passages[::step]:
        found = units(passage.text[:_LONGEST])
        language, hits = _language(found)
        short += hits
        weights[language] += len(found)
    known = weights.total() - weights[""]
    best = max(weights.keys() - {""}, key=lambda language: weights[language], default="")
    if best not in languages() or short < _LEAST_WORDS:
        return ""
    return best if weights[best] >= _SURE * known and known >= _LEAST_KNOWN * weights.total() else ""


def language_of(text: str) -> str:
    """The language of one text; empty where that is not sure, as of most texts of a few words.

    Words of one or two letters say nothing here: in so few words, those of other languages are too many.
    """
    found = units(text[:_LONGEST])
    here = set(found)
    (most, language), (next_most, _) = sorted(((len(here & own), name) for name, own in _TELLING.items()))[:-3:-1]
    share = sum(unit in _TELLING[language] for unit in found) / max(1, len(found))
    return language if most >= max(_LEAST_TELLING, 2 * next_most) and share >= _LEAST_SHARE else ""


def _language(found: Sequence[str]) -> tuple[str, int]:
    """(the language of a text in units, how many of its short words it holds); empty and 0 where it is not known."""
    here = Counter(unit for unit in found if unit in _KNOWN)
    hits = (
        {language: sum(here[word] for word in short if word in here) for language, short in _OF.items()} if here else {}
    )
    best = max(hits, key=lambda language: hits[language], default="")
    if not best or hits[best] < max(2, _LEAST_SHARE * len(found)):
        return "", 0
    return best, hits[best]
