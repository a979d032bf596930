# Prepares what all pages speak of: providers by their names on the pages, and what the stores hold. The directory is the
# working directory; it stands for /etc/app, too.
od -An -tx1 -N32 /dev/urandom | tr -d ' \n' > key.password
printf '{"db": {"user": "app", "password": "from-a-file"}, "api_key": "from-a-file"}' > secrets.json
cat > corp/secrets << 'SH'
#!/bin/sh
cat > /dev/null
echo '{"protocolVersion": 1, "values": {"db": {"user": "app", "password": "from-a-program"}}}'
SH
chmod 700 corp/secrets
cat > credresolve.yaml << YAML
version: 1
providers:
  desk: {kind: keychain, backend: file, path: desk, password: {provider: key, id: value}}
  key:  {kind: file, path: key.password, mode: raw}
  env:  {kind: env, allow: [API_KEY]}
  conf: {kind: file, path: secrets.json}
  corp: {kind: exec, command: $PWD/corp/secrets}
YAML
if [ -n "${VAULT_ADDR-}" ]; then
  echo '  app:  {kind: vault}' >> credresolve.yaml
  printf '{"user": "alice", "password": "from-vault"}' | credresolve put --json cred://app/kv/app/db
fi
