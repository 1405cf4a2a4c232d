"""Files of documents: web pages, PDF, Word, PowerPoint and Excel, read as Markdown with headings, tables and pages.

Each file is read in a worker process with a limit of time and memory, and what was read is kept by content. Knows files
and formats; knows nothing of tasks, and does not cut or search.
"""

from __future__ import annotations
