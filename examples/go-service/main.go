// A small Go program that nobody instrumented: it locates visitors by a plaintext API, and sends text
// messages by a TLS one. The sidecar sees the first down to the call. Of the second it sees the connection,
// and says why not more: Go brings its own TLS.
package main

import (
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

func main() {
	seconds := flag.Int("seconds", 15, "how long to run")
	flag.Parse()
	client := &http.Client{Timeout: 5 * time.Second}
	end := time.Now().Add(time.Duration(*seconds) * time.Second)
	for n := 0; time.Now().Before(end); n++ {
		drain(client.Get(fmt.Sprintf("http://ip-api.com/json/203.0.113.%d", n%250+1)))
		if n%3 == 0 {
			form := url.Values{"To": {"+15550100"}, "Body": {"your order has left"}}
			const messages = "https://api.twilio.com/2010-04-01/Accounts/AC0123456789abcdef0123456789abcdef/Messages.json"
			drain(client.Post(messages, "application/x-www-form-urlencoded", strings.NewReader(form.Encode())))
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// drain reads an answer to its end, so that its connection can be used again.
func drain(response *http.Response, err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "go-service:", err)
		return
	}
	io.Copy(io.Discard, response.Body)
	response.Body.Close()
}
