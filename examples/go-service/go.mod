module farcall.example/go-service

go 1.19
