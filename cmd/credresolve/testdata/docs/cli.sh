cat > app.yaml << 'YAML'
db:
  user: bob
  password: cred://app/kv/app/db#password
  port: {provider: app, id: kv/app/db, field: port, default: 5432}
YAML
cat > app.env << 'ENV'
TOKEN=cred://desk/token
ENV
echo another > key.txt
cp "$REPOSITORY/examples/adapters/python/adapter.py" .
cp "$REPOSITORY/examples/adapters/secrets.json" known-secrets.json
sed 's|\.\./secrets.json|known-secrets.json|' "$REPOSITORY/examples/adapters/conformance.json" > conformance.json
