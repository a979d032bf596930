package openclaw

import (
	"strings"
	"sync"
)

// NoSecretMarker reports whether a text in the place of an API key says how to authenticate, and is no key. Source: the
// markers of OpenClaw 2026.9.6 and its plugins.
func NoSecretMarker(value string) bool {
	value = strings.TrimSpace(value)
	return markers()[value] || SecretVariable(value) && value != "GH_TOKEN" && value != "GITHUB_TOKEN" || strings.HasPrefix(value, "oauth:") || headerMarker(value)
}

// headerMarker is NoSecretMarker for a header.
func headerMarker(value string) bool {
	value = strings.TrimSpace(value)
	return value == "secretref-managed" || strings.HasPrefix(value, "secretref-env:")
}

// SensitiveHeader reports whether a header of that name probably carries a credential.
func SensitiveHeader(name string) bool {
	name = strings.ToLower(strings.TrimSpace(name))
	if name == "authorization" || name == "proxy-authorization" {
		return true
	}
	for _, part := range []string{"api-key", "apikey", "token", "secret", "password", "credential"} {
		if strings.Contains(name, part) {
			return true
		}
	}
	return false
}

// SecretVariable reports whether an environment variable of that name is known to hold a credential of a provider.
func SecretVariable(name string) bool { return secretVariables()[name] }

var markers = set("custom-local", "codex-app-server", "gcp-vertex-credentials", "ollama-local", "secretref-managed", "apple-fm-local",
	"lmstudio-local", "minimax-oauth", "openclaw:claude-cli-native-auth", "AWS_BEARER_TOKEN_BEDROCK", "AWS_ACCESS_KEY_ID", "AWS_PROFILE",
	"DEEPSEEK_API_KEY", "PERPLEXITY_API_KEY", "FIREWORKS_API_KEY", "NOVITA_API_KEY", "AZURE_API_KEY")

// secretVariables are the names that OpenClaw 2026.9.6 and the plugins of its package know, and those that 2026.3.2 knew, whose
// plugins are packages of their own since.
var secretVariables = set(
	"ANTHROPIC_ADMIN_API_KEY", "ANTHROPIC_ADMIN_KEY", "ANTHROPIC_API_KEY", "ANTHROPIC_OAUTH_TOKEN", "AZURE_OPENAI_API_KEY",
	"AZURE_SPEECH_API_KEY", "AZURE_SPEECH_KEY", "AZURE_SPEECH_REGION", "CEREBRAS_API_KEY", "CLAWROUTER_API_KEY", "CODEX_API_KEY",
	"COPILOT_GITHUB_TOKEN", "DASHSCOPE_API_KEY", "DEEPGRAM_API_KEY", "ELEVENLABS_API_KEY", "FAL_API_KEY", "FAL_KEY", "GEMINI_API_KEY",
	"GH_TOKEN", "GITHUB_TOKEN", "GOOGLE_API_KEY", "GOOGLE_CLOUD_API_KEY", "HF_TOKEN", "HUGGINGFACE_HUB_TOKEN", "LITELLM_API_KEY",
	"LM_API_TOKEN", "MINIMAX_API_KEY", "MINIMAX_CODE_PLAN_KEY", "MINIMAX_CODING_API_KEY", "MINIMAX_OAUTH_TOKEN", "MODELSTUDIO_API_KEY",
	"NVIDIA_API_KEY", "OLLAMA_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_API_KEY", "OPENCODE_API_KEY", "OPENCODE_ZEN_API_KEY",
	"OPENROUTER_API_KEY", "QWEN_API_KEY", "RUNWAYML_API_SECRET", "RUNWAY_API_KEY", "SENSEAUDIO_API_KEY", "SGLANG_API_KEY", "SPEECH_KEY",
	"SPEECH_REGION", "TOGETHER_API_KEY", "VLLM_API_KEY", "VOYAGE_API_KEY", "XAI_API_KEY", "XI_API_KEY",

	"MOONSHOT_API_KEY", "KIMI_API_KEY", "KIMICODE_API_KEY", "SYNTHETIC_API_KEY", "VENICE_API_KEY", "ZAI_API_KEY", "Z_AI_API_KEY",
	"XIAOMI_API_KEY", "CLOUDFLARE_AI_GATEWAY_API_KEY", "AI_GATEWAY_API_KEY", "QIANFAN_API_KEY", "MISTRAL_API_KEY", "KILOCODE_API_KEY",
	"VOLCANO_ENGINE_API_KEY", "BYTEPLUS_API_KEY",
)

// set gives a func that makes the set of names when it is first called.
func set(names ...string) func() map[string]bool {
	return sync.OnceValue(func() map[string]bool {
		out := make(map[string]bool, len(names))
		for _, name := range names {
			out[name] = true
		}
		return out
	})
}
