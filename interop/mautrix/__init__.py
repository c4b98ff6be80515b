"""An application service written with mautrix, with an encrypted bot, against Chappe."""
