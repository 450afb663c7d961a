"""All that warm imports, left alone when garbage is looked for; what the process that is forked has (commands.py)."""

import warm

warm.done()
