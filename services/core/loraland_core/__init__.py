"""The words that the parts of LoRA Land share. No torch, no kopf, no server in here."""
