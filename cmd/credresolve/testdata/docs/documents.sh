cat > credresolve.yaml << 'YAML'
version: 1
providers:
  app: {kind: memory}
YAML
cat > app.yaml << 'YAML'
name: shop
services:
  - name: orders
    port: 8080
    db:
      host: db.example
      password: cred://ap/kv/app/db#password
YAML
