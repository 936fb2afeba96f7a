"""The bench host: serves a site on real links and shows what happens."""
