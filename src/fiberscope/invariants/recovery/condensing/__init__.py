"""How far neurons have condensed onto few directions."""
