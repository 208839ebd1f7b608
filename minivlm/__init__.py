"""minivlm: 21 vision-language models in plain PyTorch, each told in one notebook.

Rooms, from the ground floor up (imports only point down; docs/architecture.md has the plan of the house):

- world, nn: the toy world of scenes and texts; parts that know neither image nor text
- vision, language, connectors, audio: pixels, words and sounds to tokens, and tokens to tokens
- models: one file per surveyed model; checkpoints: released weights in and out of them
- training, evaluation: the fit loop, metrics, probes
- course: what runs, builds and checks the notebooks (`python -m minivlm --help`)
"""

__version__ = "0.1.0"
