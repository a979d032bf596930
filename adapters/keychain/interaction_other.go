//go:build !(darwin && cgo)

package keychain

// allowInteraction does nothing where the operating system asks nobody.
func allowInteraction(bool) {}
