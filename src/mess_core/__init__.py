"""MESS: find music that sounds and is played alike."""
