# %% [markdown]
# # Start here
#
# **What you will be able to do:** run a notebook of this course, and see that your set-up works.

# %%
import torch

from minivlm.course.lesson import Lesson

lesson = Lesson("00a_start_here")
print(lesson)

# %% [markdown]
# ## A first tensor

# %%
torch.arange(6).reshape(2, 3)
