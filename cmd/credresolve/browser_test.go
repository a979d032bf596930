//go:build unix

package main

import (
	"context"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/credresolve/credresolve/internal/oidctest"
)

// A person logs in by a real browser: the page of the provider, its form, and back to the command.
func TestLoginInChromium(t *testing.T) {
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("needs chromium: run make test as root on Debian")
	}
	p := oidctest.Start(t, oidctest.Options{Form: true})
	d := newDesk(t, oauthProvider(p, ""))
	d.env = append(d.env, "BROWSER=true") // the browser below is opened at the address that is printed
	r := d.start("login", "gh")
	address := r.expect(`(http://localhost:\S+/authorize\?\S+)`)
	if !strings.Contains(address, "redirect_uri=http%3A%2F%2F127.0.0.1%3A") {
		t.Errorf("it does not come back to this machine: %s", address)
	}

	browser, quit := chromedp.NewExecAllocator(t.Context(), append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.Flag("disable-dev-shm-usage", true), chromedp.WSURLReadTimeout(time.Minute))...)
	defer quit()
	tab, leave := chromedp.NewContext(browser)
	defer leave()
	tab, cancel := context.WithTimeout(tab, 2*time.Minute)
	defer cancel()
	var title, text string
	if err := chromedp.Run(tab,
		chromedp.Navigate(address),
		chromedp.Title(&title),
		chromedp.SendKeys("#username", oidctest.User),
		chromedp.SendKeys("#password", oidctest.UserPassword),
		chromedp.Click("#allow"),
	); err != nil {
		t.Fatal(err)
	}
	var reading error
	for deadline := time.Now().Add(time.Minute); !strings.Contains(text, "logged in") && time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		reading = chromedp.Run(tab, chromedp.Text("body", &text)) // a page that is left meanwhile has no body
	}
	if reading != nil {
		t.Fatal(reading)
	}
	if title != "Sign in" || !strings.Contains(text, "You are logged in") {
		t.Errorf("the pages say %q and %q", title, text)
	}
	r.ends(0)
	got := d.start("get", "cred://gh/default")
	got.ends(0)
	if got.stdout.Len() == 0 || p.Calls("/oauth/token") != 1 {
		t.Errorf("%d bytes, %d exchanges", got.stdout.Len(), p.Calls("/oauth/token"))
	}
}
