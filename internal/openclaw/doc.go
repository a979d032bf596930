// Package openclaw knows OpenClaw's files: where they are, which of their places hold secrets, and who owns these.
package openclaw
