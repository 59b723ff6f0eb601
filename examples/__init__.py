"""Small applications that use parts of Tailrace."""
