"""Request and response models: the typed face of the API, in the nouns of its routes."""
