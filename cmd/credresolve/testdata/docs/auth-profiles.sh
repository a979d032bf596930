# A home of OpenClaw with profiles in a file, and a program that answers as its exec provider would.
mkdir -p -m 700 home/.openclaw/agents/main/agent
cat > home/.openclaw/agents/main/agent/auth-profiles.json << 'JSON'
{
  "version": 1,
  "profiles": {
    "openai:default": {"type": "api_key", "provider": "openai", "key": "old"}
  }
}
JSON
cat > corp/provider << 'SH'
#!/bin/sh
cat > /dev/null
echo '{"protocolVersion": 1, "values": {"conf/api_key": "from-a-file", "x:conf/api:5fkey": "from-a-file"}}'
SH
chmod 700 corp/provider
echo "{secrets: {providers: {credresolve: {source: 'exec', command: '$PWD/corp/provider'}}}}" > home/.openclaw/openclaw.json
chmod -R go= home/.openclaw
