//go:build !linux

package keychain

func joinSession() {}
