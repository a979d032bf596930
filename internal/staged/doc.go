// Package staged replaces files in one step: who reads one finds the old content or the new one, whole, whenever the process
// that writes is killed. Where the system has files without a name (Linux), a killed process leaves nothing of the new content
// behind; elsewhere the next one that writes the same file removes it.
package staged
