cp -R "$REPOSITORY"/examples/adapters/. .
