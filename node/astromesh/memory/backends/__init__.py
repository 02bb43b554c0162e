"""Where turns are kept: one file per outside thing."""
