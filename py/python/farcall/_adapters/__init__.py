"""One module a library. Each is told the library when the application has imported it, and imports none itself."""
