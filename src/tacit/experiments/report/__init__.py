"""Reports, made from the files of a run or a comparison alone: no model, no bank, no data.

Begin with ``run`` (``write_report``) or with ``comparison`` (``write_comparison``). The figures, pictures and tables of
each are in the modules named after it; both share ``figures``, ``drawing`` and ``page``.
"""
