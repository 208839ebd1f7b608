"""The vocabulary: every word that any text of the world is made of."""

from functools import cache
from importlib import import_module

from minivlm.world.palette import COLOURS, SHAPES, SIZES

#: Modules of the world that make texts, in the order in which their words enter. The order decides ids: leave it.
_MODULES = (
    "grammar", "questions", "reasoning", "refer", "compare", "web", "episodes", "strings", "numbers",
    "document_questions", "videos", "sounds", "robot_words", "corpus",
)  # fmt: skip


#: Words that no text of the world uses, for prompts and for what a reader may type: a new notebook then needs no new word.
EVERYDAY = tuple(
    """
    i me my you your it its we us our they them their he she him her this that these those who whose why when here now then
    am was were be been being have has had do did can could will would shall should may might must let
    not never no yes or but if because so therefore since until while before after during about from for by with without into
    onto over under through between among behind near far around again also only just very too even still already maybe
    all any some none each every both either neither other another more most many few fewer less least much several
    user assistant human system robot model question answer instruction response context choice option options
    describe explain tell say write read count find locate point name show look see watch hear listen think compare answer
    detect segment ground caption transcribe translate list choose check correct guess repeat continue begin end start stop
    using use single short long brief briefly detail detailed detailed step steps exactly simply carefully
    word words phrase sentence sentences paragraph text texts letter letters digit digits character characters line lines
    page table rows columns grid tile tiles patch patches region corner centre center edge border side
    pictures images photos videos frame frames sound sounds audio scene scenes view views object objects item items
    colours color colors shapes sizes positions position location distance direction time moment seconds minute fps
    true false right wrong good bad better best same different difference equal match matches fit fits
    big bigger biggest smaller smallest largest higher lower closer closest empty full whole part parts
    hello please thanks okay sorry interesting happening contains contain shown visible hidden missing
    world toy learn learned train trained test example examples
    """.split()
)


#: Modules that came after the words were fixed: theirs stand behind all others.
_LATER: tuple[str, ...] = ()


@cache
def _words() -> tuple[str, ...]:
    def said(modules: tuple[str, ...]) -> list[str]:
        return [word for module in modules for word in import_module(f"minivlm.world.{module}").WORDS]

    return tuple(dict.fromkeys([*COLOURS, *SHAPES, *SIZES, *said(_MODULES), *EVERYDAY, *said(_LATER)]))


def vocabulary() -> list[str]:
    """Every word, lower case, in a fixed order. Trained weights depend on it: a new word is a new `world.VERSION`, unless
    it comes after all others (`_LATER`), and even then older backbones do not know it.
    """
    return list(_words())
