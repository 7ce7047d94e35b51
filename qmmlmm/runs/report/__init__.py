"""The report of a run, ``report.html``: one file with all that it shows, for any browser."""
