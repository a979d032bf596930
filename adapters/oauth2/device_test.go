package oauth2_test

import (
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/credresolve/credresolve/adapters/oauth2"
	"github.com/credresolve/credresolve/backend"
)

// pace is a server of device codes that gives the answers of a script, the last one again and again, and notes when it was asked.
type pace struct {
	device  string
	answers []string // "STATUS BODY"; "never" gives none

	mu    sync.Mutex
	began time.Time
	asked []time.Duration
}

func (p *pace) RoundTrip(r *http.Request) (*http.Response, error) {
	answer := "200 " + p.device
	if r.URL.Path == "/token" {
		p.mu.Lock()
		answer = p.answers[min(len(p.asked), len(p.answers)-1)]
		p.asked = append(p.asked, time.Since(p.began))
		p.mu.Unlock()
	}
	if answer == "never" {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	status, body, _ := strings.Cut(answer, " ")
	code, _ := strconv.Atoi(status)
	h := http.Header{"Content-Type": {"application/json"}}
	if code == http.StatusServiceUnavailable {
		h.Set("Retry-After", "40")
	}
	return &http.Response{StatusCode: code, Header: h, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
}

// RFC 8628, 3.5: a device asks no sooner than it may, by an interval that only grows, and stops when it is told to.
func TestPaceAndEndOfADeviceCode(t *testing.T) {
	t.Parallel()
	const (
		device = `{"device_code":"d-c4nary","user_code":"WDJB-MJHT","verification_uri":"https://login.example/device"`
		wait   = `400 {"error":"authorization_pending","error_description":"c4nary"}`
		slow   = `400 {"error":"slow_down"}`
		slow2  = `200 {"error":"slow_down","interval":12}` // as GitHub tells errors
		token  = `200 {"access_token":"a-c4nary","token_type":"bearer"}`
	)
	s := func(seconds ...time.Duration) (out []time.Duration) {
		for _, one := range seconds {
			out = append(out, one*time.Second)
		}
		return out
	}
	for name, tt := range map[string]struct {
		device   string
		answers  []string
		status   backend.LoginStatus
		code     backend.Code
		interval time.Duration // at the end
		asked    []time.Duration
		after    time.Duration // when the login ended
	}{
		"at once":                {`,"interval":2}`, []string{token}, backend.LoginSuccess, "", 2 * time.Second, s(2), 2 * time.Second},
		"without an interval":    {`}`, []string{wait, token}, backend.LoginSuccess, "", 5 * time.Second, s(5, 10), 10 * time.Second},
		"slower, twice":          {`,"interval":2}`, []string{wait, slow, wait, slow2, token}, backend.LoginSuccess, "", 12 * time.Second, s(2, 4, 11, 18, 30), 30 * time.Second},
		"the person refuses":     {`,"interval":1}`, []string{wait, `400 {"error":"access_denied","error_description":"c4nary"}`}, backend.LoginError, backend.CodeDenied, time.Second, s(1, 2), 2 * time.Second},
		"the server ends it":     {`,"interval":1}`, []string{wait, `400 {"error":"expired_token"}`}, backend.LoginExpired, "", time.Second, s(1, 2), 2 * time.Second},
		"its time is over":       {`,"interval":7,"expires_in":20}`, []string{wait}, backend.LoginExpired, "", 7 * time.Second, s(7, 14), 20 * time.Second},
		"our time is over":       {`,"interval":"400"}`, []string{wait}, backend.LoginExpired, "", 400 * time.Second, s(400), 10 * time.Minute},
		"it is down for a while": {`,"interval":5}`, []string{`503 c4nary`, wait, token}, backend.LoginSuccess, "", 5 * time.Second, s(5, 45, 55), 55 * time.Second},
		"it never answers":       {`,"interval":5,"expires_in":70}`, []string{"never"}, backend.LoginExpired, "", 5 * time.Second, s(5, 45), 70 * time.Second},
		"a wrong client":         {`,"interval":1}`, []string{`401 {"error":"invalid_client"}`}, backend.LoginError, backend.CodeAuthRequired, time.Second, s(1), time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b, err := oauth2.New(oauth2.Config{
					Grant: "device_code", ClientID: "c",
					Endpoints: oauth2.Endpoints{Device: "https://login.example/device", Token: "https://login.example/token"},
				}, backend.Host{})
				if err != nil {
					t.Fatal(err)
				}
				defer b.Close()
				server := &pace{device: device + tt.device, answers: tt.answers, began: time.Now()}
				oauth2.Through(b, server)
				l := start(t, b, backend.LoginOptions{})
				if l.UserCode != "WDJB-MJHT" || l.URL != "https://login.example/device" {
					t.Errorf("%+v", l)
				}
				time.Sleep(tt.after - time.Nanosecond)
				synctest.Wait()
				if now, err := b.PollLogin(t.Context(), l.State); err != nil || now.Status != backend.LoginPending {
					t.Fatalf("before its end: %+v, %v", now, err)
				}
				time.Sleep(time.Nanosecond)
				synctest.Wait()
				end, err := b.PollLogin(t.Context(), l.State)
				if err != nil || end.Status != tt.status || end.Code != tt.code || end.Interval != tt.interval || (end.Grant != nil) != (tt.status == backend.LoginSuccess) {
					t.Errorf("%+v, %v", end, err)
				}
				if end.UserCode != "" || strings.Contains(end.Message, "c4nary") || (end.Message == "") != (tt.status != backend.LoginError) {
					t.Errorf("it tells %q %q", end.UserCode, end.Message)
				}
				time.Sleep(time.Hour)
				if !slices.Equal(server.asked, tt.asked) {
					t.Errorf("it was asked after %v, want %v", server.asked, tt.asked)
				}
			})
		})
	}
}

// What a server says of a device code is bounded before a person sees it.
func TestDeviceCodesThatAreNotShown(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{
		"a file":       `"user_code":"A","verification_uri":"file:///etc/passwd"`,
		"a script":     `"user_code":"A","verification_uri":"javascript:alert(1)"`,
		"plain http":   `"user_code":"A","verification_uri":"http://evil.example/c4nary"`,
		"a whole file": `"user_code":"A","verification_uri":"https://login.example","verification_uri_complete":"file:///c4nary"`,
		"no page":      `"user_code":"A"`,
		"no code":      `"verification_uri":"https://login.example"`,
		"control":      `"user_code":"A\u001b]0;c4nary\u0007","verification_uri":"https://login.example"`,
		"a long one":   `"user_code":"` + strings.Repeat("c4nary", 100) + `","verification_uri":"https://login.example"`,
		"a number":     `"user_code":1,"verification_uri":"https://login.example"`,
	} {
		b := open(t, oauth2.Config{
			Grant: "device_code", ClientID: "c",
			Endpoints: oauth2.Endpoints{Device: "https://login.example/device", Token: "https://login.example/token"},
		})
		oauth2.Through(b, &pace{device: `{"device_code":"d-c4nary",` + answer + `}`})
		if _, err := b.StartLogin(t.Context(), me, backend.LoginOptions{}); err == nil {
			t.Errorf("%s is shown", name)
		} else {
			fails(t, err, backend.ErrUnavailable, "login.example: the start of the login")
		}
	}
}
