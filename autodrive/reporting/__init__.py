"""Pages, figures and terminal tables made from the files of finished runs; no model is loaded here."""
