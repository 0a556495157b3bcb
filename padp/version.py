"""The version of padp, which checkpoints and reports name."""

VERSION = "0.1.0"
