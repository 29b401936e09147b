"""Files of others that want to run code, to hang, or to be shown as what they are not."""
