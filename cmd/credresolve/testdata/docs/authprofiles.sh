# An agent of OpenClaw, whose state directory the page's example names.
mkdir -p -m 700 claw/agents/main/agent
cat > claw/agents/main/agent/auth-profiles.json << 'JSON'
{
  "version": 1,
  "profiles": {
    "anthropic:work": {"type": "token", "provider": "anthropic", "token": "from-a-profile"},
    "openai:default": {"type": "api_key", "provider": "openai", "key": "from-a-profile"}
  }
}
JSON
chmod -R go= claw
sed "s|/home/me/.openclaw|$PWD/claw|" example.yaml > credresolve.yaml
