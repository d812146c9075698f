"""Tables, figures and pages made from files of finished runs; no model is loaded here."""
