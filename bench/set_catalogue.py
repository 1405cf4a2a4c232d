"""A product catalogue, made: tables and data sheets of items that differ in one letter and a few figures.

Ten families of twelve items. Each item has a data sheet (a web page with its technical values); each family has a price
list (Excel, a sheet for each market) and a table of deliveries (CSV). A fact stands in one of them only. Questions name
the item and ask for a value, or name values and ask for the item, partly in other words than the tables.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from html import escape

from made_documents import html_of, xlsx_of
from made_sets import MadeSet, Row, taken

Value = Callable[[random.Random], str]


@dataclass(frozen=True)
class Family:
    """values: name in the data sheet -> (other names that questions use, how a value is drawn)."""

    name: str
    maker: str
    letters: str
    values: dict[str, tuple[tuple[str, ...], Value]]


def _number(low: int, high: int, step: int, unit: str) -> Value:
    return lambda draw: f"{draw.randrange(low, high, step)} {unit}"


def _decimal(low: int, high: int, unit: str) -> Value:
    return lambda draw: f"{draw.randint(low, high) / 10:.1f} {unit}"


def _of(*choices: str) -> Value:
    return lambda draw: draw.choice(choices)


FAMILIES = (
    Family("submersible pump", "Aquavia", "PX", {
        "Delivery rate": (("flow", "amount of water it moves"), _number(12, 480, 3, "l/min")),
        "Maximum head": (("lift height", "height to which it pumps"), _decimal(32, 480, "m")),
        "Rated power": (("power consumption", "wattage"), _number(180, 2600, 15, "W")),
        "Impeller": (("material of the impeller",), _of("bronze", "cast iron", "Noryl", "stainless steel 316")),
        "Cable length": (("length of its lead",), _number(5, 41, 1, "m"))}),
    Family("cordless drill", "Bohrmann", "BD", {
        "Torque": (("turning force",), _number(28, 145, 1, "Nm")),
        "Idle speed": (("revolutions without load",), _number(350, 2600, 25, "rpm")),
        "Chuck": (("largest bit it holds",), _of("10 mm keyless", "13 mm keyless", "13 mm keyed", "1/4 inch hex")),
        "Battery": (("capacity of its battery pack",), _decimal(13, 90, "Ah")),
        "Vibration": (("shaking that reaches the hand",), _decimal(11, 79, "m/s²"))}),
    Family("network switch", "Tessera", "NS", {
        "Switching capacity": (("throughput", "data it can forward"), _number(10, 960, 2, "Gbit/s")),
        "PoE budget": (("power for connected devices",), _number(60, 1480, 10, "W")),
        "MAC table": (("number of addresses it remembers",), _number(4096, 131072, 512, "entries")),
        "Fan noise": (("loudness",), _decimal(180, 590, "dB(A)")),
        "Latency": (("delay", "time a frame needs to pass"), _decimal(8, 99, "µs"))}),
    Family("LED panel", "Lumora", "LP", {
        "Luminous flux": (("brightness", "amount of light"), _number(1800, 9800, 50, "lm")),
        "Colour temperature": (("shade of white",), _of("2700 K", "3000 K", "3500 K", "4000 K", "5000 K", "6500 K")),
        "Beam angle": (("spread of the light",), _number(30, 121, 1, "degrees")),
        "Service life": (("hours until it fades",), _number(25000, 90000, 1000, "h")),
        "Glare index": (("UGR",), _number(11, 26, 1, "UGR"))}),
    Family("office chair", "Sedia Nord", "OC", {
        "Seat height": (("distance of the seat from the floor",), _number(38, 61, 1, "cm")),
        "Load": (("heaviest person it carries",), _number(90, 201, 1, "kg")),
        "Backrest": (("what the back is covered with",), _of("mesh", "wool felt", "leather", "recycled polyester")),
        "Castors": (("kind of wheels",), _of("soft, for hard floors", "hard, for carpet", "braked", "glides")),
        "Tilt": (("how far it leans back",), _number(8, 36, 1, "degrees"))}),
    Family("ball bearing", "Rollwerk", "RB", {
        "Bore": (("inner diameter", "shaft that it fits"), _number(6, 120, 1, "mm")),
        "Outer diameter": (("size across the outside",), _number(19, 260, 1, "mm")),
        "Dynamic load rating": (("load while turning",), _decimal(21, 1650, "kN")),
        "Limiting speed": (("fastest rotation allowed",), _number(2200, 38000, 100, "rpm")),
        "Seal": (("how it is closed",), _of("2RS rubber", "ZZ steel", "open", "2RZ low friction"))}),
    Family("battery pack", "Voltaris", "VB", {
        "Energy": (("stored energy",), _number(240, 9800, 20, "Wh")),
        "Charge time": (("hours until it is full",), _decimal(9, 118, "h")),
        "Cycle life": (("number of charges it lasts",), _number(400, 6500, 50, "cycles")),
        "Discharge current": (("strongest current it gives",), _number(8, 220, 1, "A")),
        "Chemistry": (("type of cells",), _of("LiFePO4", "NMC 622", "NMC 811", "LTO", "sodium-ion"))}),
    Family("water filter", "Klarwell", "WF", {
        "Pore size": (("smallest particle it holds back",), _decimal(1, 95, "µm")),
        "Cartridge life": (("litres until it must be changed",), _number(900, 24000, 100, "litres")),
        "Working pressure": (("highest pressure",), _decimal(15, 99, "bar")),
        "Connection": (("thread",), _of("1/2 inch", "3/4 inch", "1 inch", "3/8 inch push-fit")),
        "Medium": (("what is inside it",), _of("activated carbon", "ceramic", "pleated polyester", "ion resin"))}),
    Family("solenoid valve", "Ventix", "SV", {
        "Response time": (("how quickly it opens",), _number(5, 120, 1, "ms")),
        "Flow coefficient": (("Kv value",), _decimal(2, 260, "m³/h")),
        "Coil voltage": (("supply of the coil",), _of("12 V DC", "24 V DC", "24 V AC", "110 V AC", "230 V AC")),
        "Seal material": (("rubber that it closes with",), _of("NBR", "EPDM", "FKM", "PTFE")),
        "Protection": (("IP class",), _of("IP54", "IP65", "IP67", "IP69K"))}),
    Family("barcode scanner", "Optiko", "BS", {
        "Reading distance": (("how far away a code may be",), _number(12, 240, 1, "cm")),
        "Scan rate": (("readings a second",), _number(60, 1500, 10, "scans/s")),
        "Drop height": (("fall that it survives",), _decimal(12, 32, "m")),
        "Radio range": (("distance from its base station",), _number(10, 160, 2, "m")),
        "Light source": (("what it shines with",), _of("red laser 650 nm", "white LED", "amber LED", "infrared LED"))}),
)  # fmt: skip
_MARKETS = {"EU": "EUR", "UK": "GBP", "Swiss": "CHF"}
_SALES = (
    "Made for professional use and tested one by one. Subject to change without notice.",
    "The successor of a proven series. Accessories of the former series fit as well.",
    "Robust, easy to service, and supplied with all that is needed for mounting.",
)
_NOTES = (
    "Values were measured at 20 °C and 230 V. Tolerances follow the standard of the product group.",
    "All values are typical ones. For a guaranteed value ask our technical office.",
    "Keep this sheet with the product. A signed copy can be asked for.",
)
_DELIVERY: dict[str, tuple[tuple[str, ...], Value]] = {
    "Delivery time": (("How long does delivery of the {item} take?", "In what time is a {item} shipped?"),
                      _number(2, 70, 1, "days")),
    "Smallest order": (("How many of the {item} have to be ordered at least?",
                        "What is the minimum quantity for the {item}?"), _number(2, 96, 1, "pieces")),
    "Customs tariff": (("Under which customs number is the {item} declared?",
                        "What is the tariff code of the {item}?"),
                       lambda draw: f"{draw.randint(8400, 9500)}.{draw.randint(10, 99)}.{draw.randint(10, 99)}"),
    "Warehouse": (("Where is the {item} kept in stock?", "Which storage place holds the {item}?"),
                  lambda draw: f"hall {draw.randint(1, 9)}, row {draw.choice('ABCDEFGH')}{draw.randint(1, 60)}"),
}  # fmt: skip
_ASK = (
    "What is the {what} of the {item}?",
    "Tell me the {what} of {maker}'s {name} {model}.",
    "{item}: {what}?",
    "Which {what} does the {model} have?",
)


def catalogue(seed: int = 0, questions: int = 260) -> MadeSet:
    draw = random.Random(f"catalogue {seed}")
    files: dict[str, bytes] = {}
    asked: list[tuple[str, str, str, str]] = []  # question, answer, file, group
    for family in FAMILIES:
        models = _models(family, draw)
        sheets = {m: {name: value(draw) for name, (_, value) in family.values.items()} for m in models}
        for model, values in sheets.items():
            path = f"sheets/{family.letters.lower()}/{model.lower()}.html"
            files[path] = _sheet(family, model, values, draw)
            asked += [(_question(family, model, name, draw), v, path, model) for name, v in values.items()]
            asked += _reversed(family, model, sheets, path, draw)
        asked += _tables(family, models, files, draw)
    rows = [
        Row(f"catalogue-{i:03}", question, answer, (path,), group)
        for i, (question, answer, path, group) in enumerate(taken(asked, questions, draw))
    ]
    return MadeSet(
        "catalogue",
        "Answer the question about a product with the value only, as the catalogue writes it.",
        files,
        rows,
    )


def _models(family: Family, draw: random.Random) -> list[str]:
    """Twelve names, near one another: PX-240, PX-240S, PX-245, …"""
    base = draw.randrange(12, 88) * 10
    plain = [f"{family.letters}-{base + step}" for step in (0, 5, 10, 50)]
    return [name + ending for name in plain for ending in ("", *draw.sample(("S", "XL", "Plus", "E", "T2"), 2))]


def _sheet(family: Family, model: str, values: dict[str, str], draw: random.Random) -> bytes:
    title = f"{family.maker} {model} {family.name}: data sheet"
    order = list(values)
    draw.shuffle(order)
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(values[name])}</td></tr>" for name in order)
    body = f"<h1>{escape(title)}</h1><p>{draw.choice(_SALES)}</p><h2>Technical data</h2><table>{rows}</table>"
    body += f"<h2>Notes</h2><p>{draw.choice(_NOTES)}</p><footer>Catalogue 12</footer>"
    return html_of(title, body)


def _item(family: Family, model: str) -> str:
    return f"{family.maker} {model}"


def _question(family: Family, model: str, name: str, draw: random.Random) -> str:
    what = draw.choice((name.lower(), *family.values[name][0]))
    return draw.choice(_ASK).format(
        what=what, item=_item(family, model), maker=family.maker, name=family.name, model=model
    )


def _reversed(
    family: Family, model: str, sheets: dict[str, dict[str, str]], path: str, draw: random.Random
) -> list[tuple[str, str, str, str]]:
    """A question for the item that has two values, where no other has both."""
    first, second = draw.sample(list(family.values), 2)
    pair = (sheets[model][first], sheets[model][second])
    if sum((v[first], v[second]) == pair for v in sheets.values()) > 1:
        return []
    said = f"{first.lower()} {pair[0]} and {second.lower()} {pair[1]}"
    return [(f"Which {family.maker} {family.name} has {said}?", model, path, model)]


def _tables(
    family: Family, models: list[str], files: dict[str, bytes], draw: random.Random
) -> list[tuple[str, str, str, str]]:
    """Writes the price list and the table of deliveries; returns what may be asked of them."""
    asked = []
    prices = f"prices/{family.letters.lower()}-prices.xlsx"
    sheets: dict[str, list[list[str]]] = {}
    for market, currency in _MARKETS.items():
        sheets[f"{market} market"] = [["Article", "Model", "Description", f"List price {currency}", "Weight kg"]]
        for model in models:
            price, article = f"{draw.randint(1900, 199900) / 100:.2f}", f"{draw.randint(100000, 999999)}"
            row = [article, model, f"{family.maker} {family.name}", price, f"{draw.randint(2, 400) / 10:.1f}"]
            sheets[f"{market} market"].append(row)
            ask = (f"What does the {_item(family, model)} cost in {currency}?",
                   f"List price of the {model} for the {market} market?")  # fmt: skip
            asked.append((draw.choice(ask), price, prices, model))
            asked.append((f"Which article number has the {model} in the {market} market?", article, prices, model))
    files[prices] = xlsx_of(sheets)
    deliveries = f"logistics/{family.letters.lower()}-deliveries.csv"
    lines = [";".join(("Model", *_DELIVERY))]
    for model in models:
        values = {name: value(draw) for name, (_, value) in _DELIVERY.items()}
        lines.append(";".join((model, *values.values())))
        for name, (questions, _) in _DELIVERY.items():
            asked.append((draw.choice(questions).format(item=_item(family, model)), values[name], deliveries, model))
    files[deliveries] = ("\n".join(lines) + "\n").encode()
    return asked
