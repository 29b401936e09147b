"""One run, from its configuration to its record: LightningModule, callbacks, checkpoints, cost."""
