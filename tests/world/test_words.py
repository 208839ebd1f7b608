"""The vocabulary is fixed: ids are in every stored weight."""

import hashlib
import re

from minivlm import world
from minivlm.world.corpus import KINDS, read
from minivlm.world.words import EVERYDAY

#: What boxes are written with; spelled in bytes on purpose, as in the models that write them.
IN_BRACKETS = re.compile(r"<[^>]*>|\"[^\"]*\"")


def test_the_words_are_those_of_this_version():
    """A stored hash: another order gives every trained weight other words, and the world needs a new VERSION."""
    fingerprint = hashlib.sha256("\n".join(world.vocabulary()).encode()).hexdigest()[:16]
    assert (world.VERSION, fingerprint) == ("1.0", "5175707ca3f1ba91"), "the vocabulary is another: that is a new VERSION"


def test_words_are_distinct_and_plain():
    words = world.vocabulary()
    assert len(set(words)) == len(words)
    assert all(re.fullmatch("[a-z]+", word) for word in words)


def test_every_word_of_every_text_is_in_the_vocabulary():
    known = set(world.vocabulary())
    for kind in KINDS:
        for text in read("words", 0, 0, 200, kinds=[kind]):
            unknown = set(re.findall("[a-z]+", IN_BRACKETS.sub(" ", text.text))) - known
            if kind == "sound":  # tones may spell no word, and are then read letter by letter
                unknown = {word for word in unknown if " ".join(word) not in text.told}
            assert not unknown, f"{unknown} in a text of kind {kind!r}: {text.text!r}"


def test_everyday_words_are_there_for_prompts():
    assert {"describe", "user", "assistant", "please"} <= set(EVERYDAY) <= set(world.vocabulary())
