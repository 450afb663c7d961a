"""Tacit: a frozen language model that learns from its own experience.

Experiential latent memories (arXiv 2606.17803): each problem leaves a soft prompt of about twenty vectors, trained with
no labels, stored apart from all others and found again for the next similar problem. Start reading at ``tacit.agent``.
"""

import os

# A memory learned alone and one learned among others have the same bits only if a matrix product rounds a row the same
# way whatever rows are beside it. On some processors Intel's library (torch's on x86) promises that in its strict mode
# alone, and reads this at its first product. It costs nothing measurable (docs/log/).
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
