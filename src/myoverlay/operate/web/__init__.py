"""The read-only web page: what it shows (`picture`), and how it is asked for (`page`). The rest is the browser's."""
