// This file lets start_wasip1.go declare main.main without a body.
