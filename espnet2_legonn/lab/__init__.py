"""Looking at what modules say: pictures of interfaces."""
