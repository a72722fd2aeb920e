"""One pod, one job: rows become a LoRA adapter, scored and committed to the artifact store."""
