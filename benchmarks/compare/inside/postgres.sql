-- What the databases of both applications hold when they start; stores.py says how many of each.
CREATE TABLE products (id int PRIMARY KEY, kind int, name text, price numeric(8, 2), stock int);
INSERT INTO products
SELECT n, 1 + n % 40, 'product ' || n || ' ' || md5(n::text), 1 + n % 300 + 0.99, 1000000 FROM generate_series(1, 2000) n;
CREATE INDEX ON products (kind, price);
CREATE TABLE purchases (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, buyer int);
INSERT INTO purchases (buyer) SELECT 1 + n % 500 FROM generate_series(1, 10000) n;
CREATE TABLE items (purchase int, product int, price numeric(8, 2));
INSERT INTO items
SELECT p, 1 + (p * 7 + i * i * 131) % 2000, 9.99 FROM generate_series(1, 10000) p, generate_series(1, 4) i;
CREATE INDEX ON items (product);
CREATE INDEX ON items (purchase);
CREATE TABLE movies (id int PRIMARY KEY, title text, year int, plot text);
INSERT INTO movies
SELECT n, 'movie ' || n, 1930 + n % 90, repeat('somebody meets ' || md5(n::text) || ', ', 40) FROM generate_series(1, 810) n;
CREATE TABLE reviews (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, movie int, stars int, body text);
INSERT INTO reviews (movie, stars, body)
SELECT 1 + n % 800, n % 6, repeat('review ' || n || ' ', 20) FROM generate_series(1, 20000) n;
CREATE INDEX ON reviews (movie, id);
VACUUM ANALYZE;
