mkdir -p "$HOME/.openclaw"
cat > "$HOME/.openclaw/openclaw.json" << 'JSON'
{
  gateway: { auth: { mode: "token", token: "${GATEWAY_TOKEN}" } },
  models: {
    providers: {
      anthropic: {
        baseUrl: "https://api.anthropic.com",
        apiKey: { source: "file", provider: "conf", id: "/api_key" },
      },
      openai: { baseUrl: "https://api.openai.com/v1", apiKey: "sk-in-plain-text" },
    },
  },
  secrets: {
    providers: {
      conf: { source: "file", path: "~/secrets.json" },
    },
  },
}
JSON
cp secrets.json "$HOME/secrets.json"
echo 'db: {source: env, provider: default, id: DB_PASSWORD}' > app.yaml
