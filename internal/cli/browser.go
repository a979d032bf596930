package cli

import (
	"net/url"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/credresolve/credresolve/backend"
)

// webAddress gives address if it is one that a browser may be sent to, whoever named it: https or http, a host, and nothing
// that a terminal or a program could take for something else.
func webAddress(address string) (string, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil ||
		strings.ContainsFunc(address, func(c rune) bool { return c <= ' ' || c >= 0x7f }) {
		return "", &backend.Error{
			Code: backend.CodeUnavailable, Reason: "the address at which to log in is not that of a web page", Remedy: "check where the provider's settings lead",
		}
	}
	return address, nil
}

// browser gives the program that opens pages, and its arguments for address; ok is false where there is none to be expected.
// $BROWSER may hold several separated by colons, each with arguments, of which %s is the address.
func (a *app) browser(address string) (name string, args []string, ok bool) {
	if named, _ := a.lookupEnv("BROWSER"); named != "" {
		for _, one := range filepath.SplitList(named) {
			words := strings.Fields(one)
			if len(words) == 0 {
				continue
			}
			if _, err := exec.LookPath(words[0]); err != nil {
				continue
			}
			given := false
			for i, w := range words[1:] {
				if strings.Contains(w, "%s") {
					words[i+1], given = strings.ReplaceAll(w, "%s", address), true
				}
			}
			if !given {
				words = append(words, address)
			}
			return words[0], words[1:], true
		}
		return "", nil, false
	}
	switch runtime.GOOS {
	case "windows":
		return "rundll32", []string{"url.dll,FileProtocolHandler", address}, true
	case "darwin":
		return "open", []string{address}, true
	}
	if !a.hasDisplay() { // xdg-open would take the terminal for a browser of text
		return "", nil, false
	}
	if _, err := exec.LookPath("xdg-open"); err != nil {
		return "", nil, false
	}
	return "xdg-open", []string{address}, true
}

func (a *app) hasDisplay() bool {
	for _, name := range []string{"DISPLAY", "WAYLAND_DISPLAY"} {
		if v, _ := a.lookupEnv(name); v != "" {
			return true
		}
	}
	return false
}

// remote reports whether the person sits at another machine, whose browser cannot come back to this one.
func (a *app) remote() bool {
	for _, name := range []string{"SSH_CONNECTION", "SSH_TTY", "SSH_CLIENT"} {
		if v, _ := a.lookupEnv(name); v != "" {
			named, _ := a.lookupEnv("BROWSER")
			return !a.hasDisplay() && named == ""
		}
	}
	return false
}

// openBrowser shows address in the browser, without a shell. It does not wait for the browser's end; failed is closed if the
// program ends with an error.
func (a *app) openBrowser(address string) (failed <-chan struct{}, ok bool) {
	name, args, ok := a.browser(address)
	if !ok {
		return nil, false
	}
	cmd := exec.Command(name, args...)
	cmd.Env = a.environ
	detach(cmd) // a ^C here is not meant for it
	if err := cmd.Start(); err != nil {
		a.log.Debug("the browser does not start", "reason", reason(err))
		return nil, false
	}
	a.log.Debug("the browser is opened", "program", name)
	ended := make(chan struct{})
	go func() {
		if cmd.Wait() != nil {
			close(ended)
		}
	}()
	return ended, true
}
