"""The core decides, and only decides: no thread, process, clock, socket, file or pickle in here."""
