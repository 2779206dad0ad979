"""An exported model and a face bank -> who is on a photo."""
