"""Names of things as captions say them: the 80 names of COCO, their synonyms, and plurals.

The table is our own and is short on purpose: a synonym that often means something else ("glass",
"plant", "computer") is left out, so such a mention is neither right nor hallucinated.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

# Name of the class: other words for it, singular.
COCO: Mapping[str, str] = {
    "person": "man woman boy girl child kid baby toddler infant lady guy gentleman teenager adult "
    "someone somebody skier snowboarder surfer skateboarder rider cyclist motorcyclist pedestrian "
    "player batter pitcher catcher umpire driver chef waiter bride groom policeman officer crowd",
    "bicycle": "bike cycle tricycle",
    "car": "automobile sedan taxi cab suv minivan van",
    "motorcycle": "motorbike scooter moped dirt_bike motor_bike",
    "airplane": "plane aeroplane jet aircraft airliner jetliner biplane",
    "bus": "minibus double_decker",
    "train": "locomotive tram subway_train",
    "truck": "lorry pickup fire_truck firetruck fire_engine semi",
    "boat": "ship sailboat canoe kayak yacht ferry rowboat raft",
    "traffic light": "traffic_signal stoplight stop_light",
    "fire hydrant": "hydrant",
    "stop sign": "",
    "parking meter": "",
    "bench": "",
    "bird": "seagull gull duck goose swan pigeon parrot owl eagle sparrow rooster chicken penguin",
    "cat": "kitten kitty tomcat",
    "dog": "puppy pup doggy terrier bulldog retriever",
    "horse": "pony foal stallion mare",
    "sheep": "lamb ewe",
    "cow": "cattle calf bull ox",
    "elephant": "",
    "bear": "polar_bear grizzly bear_cub",
    "zebra": "",
    "giraffe": "",
    "backpack": "rucksack back_pack knapsack",
    "umbrella": "parasol",
    "handbag": "purse hand_bag",
    "tie": "necktie bow_tie",
    "suitcase": "luggage suit_case",
    "frisbee": "flying_disc",
    "skis": "ski",
    "snowboard": "snow_board",
    "sports ball": "ball soccer_ball tennis_ball basketball football beach_ball",
    "kite": "",
    "baseball bat": "bat",
    "baseball glove": "baseball_mitt",
    "skateboard": "skate_board",
    "surfboard": "surf_board",
    "tennis racket": "racket racquet tennis_racquet",
    "bottle": "",
    "wine glass": "wineglass glass_of_wine",
    "cup": "mug teacup coffee_cup",
    "fork": "",
    "knife": "",
    "spoon": "",
    "bowl": "",
    "banana": "",
    "apple": "",
    "sandwich": "burger hamburger cheeseburger",
    "orange": "",
    "broccoli": "",
    "carrot": "",
    "hot dog": "hotdog",
    "pizza": "",
    "donut": "doughnut",
    "cake": "cupcake",
    "chair": "armchair recliner",
    "couch": "sofa loveseat",
    "potted plant": "houseplant house_plant",
    "bed": "",
    "dining table": "table desk",
    "toilet": "",
    "tv": "television monitor tv_set",
    "laptop": "laptop_computer macbook",
    "mouse": "computer_mouse",
    "remote": "remote_control tv_remote",
    "keyboard": "",
    "cell phone": "phone cellphone smartphone mobile_phone telephone iphone",
    "microwave": "microwave_oven",
    "oven": "stove",
    "toaster": "",
    "sink": "",
    "refrigerator": "fridge",
    "book": "",
    "clock": "",
    "vase": "",
    "scissors": "",
    "teddy bear": "teddy stuffed_bear",
    "hair drier": "hair_dryer hairdryer blow_dryer",
    "toothbrush": "tooth_brush",
}

# Phrases that hold a name and mean none of the 80.
_NO_NAMES: Mapping[str, tuple[str, ...]] = {
    "skis": ("jet ski", "jet skis", "water ski", "water skis"),
    "mouse": ("mickey mouse", "minnie mouse"),
    "keyboard": ("piano keyboard", "musical keyboard", "laptop keyboard"),
}

_IRREGULAR = {
    "man": "men",
    "woman": "women",
    "policeman": "policemen",
    "gentleman": "gentlemen",
    "child": "children",
    "person": "people",
    "mouse": "mice",
    "goose": "geese",
    "ox": "oxen",
    "knife": "knives",
    "calf": "calves",
    "lady": "ladies",
}
_UNCHANGED = frozenset({"sheep", "cattle", "scissors", "skis", "broccoli", "aircraft", "luggage"})


def plural(word: str) -> str:
    """The plural of a noun, by rule; compounds change their last word."""
    head, space, last = word.rpartition(" ")
    if last in _UNCHANGED:
        return word
    if last in _IRREGULAR:
        return head + space + _IRREGULAR[last]
    if last.endswith(("s", "x", "z", "ch", "sh")):
        return f"{word}es"
    if last.endswith("y") and last[-2:-1] not in "aeiou":
        return f"{word[:-1]}ies"
    return f"{word}s"


def is_plural_only(word: str) -> bool:
    """Whether singular and plural look alike, so that any number may stand before the word."""
    return word.rpartition(" ")[2] in _UNCHANGED


def phrases(
    names: Iterable[str], synonyms: Mapping[str, Iterable[str]] | None = None
) -> dict[str, tuple[str, bool]]:
    """Phrase -> (name, whether it is a plural), for every name, synonym and plural.

    The name "" means that the phrase names nothing, though a part of it would.

    Args:
        names: the classes that are annotated, lower case. Those of COCO bring their synonyms.
        synonyms: further ones, name -> phrases. A name is never a synonym of another.
    """
    found: dict[str, tuple[str, bool]] = {}
    given = synonyms or {}
    names = list(dict.fromkeys(names))
    for name in names:
        for word in (
            *(w.replace("_", " ") for w in COCO.get(name, "").split()),
            *(w.lower() for w in given.get(name, ())),
        ):
            found[plural(word)] = (name, True)
            found[word] = (name, is_plural_only(word))
            if name == "wine glass" and word == "glass of wine":
                found["glasses of wine"] = (name, True)
    for name in names:
        found[plural(name)] = (name, True)
        if name == "person":
            found["persons"] = (name, True)
        found[name] = (name, is_plural_only(name))
        found |= dict.fromkeys(_NO_NAMES.get(name, ()), ("", False))
    return found
