"""Released checkpoints in and out of this course's classes: folders with a `config.json` and safetensors files.

- `load(folder)`: a model that takes the reference's arguments and answers under its names; the lesson class is its `.model`
- `read(folder)`: the config's numbers and the tensors under our names, for classes of your own
- `save(model, folder)`: a folder that the reference loads, whole or not at all

This room alone knows other people's argument names, tensor names and file layouts. A model's translation is one file
(`clip.py`): a table of config fields, a table of tensor names, and the class that takes the reference's arguments. The rest
is the same for all of them. Pickled weights are never read.
"""

from minivlm.checkpoints.doors import FORMATS, load, read, save
from minivlm.checkpoints.errors import CheckpointError

__all__ = ["FORMATS", "CheckpointError", "load", "read", "save"]
